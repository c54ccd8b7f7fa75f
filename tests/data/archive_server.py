"""A server on this machine that plays the archives, their moods included."""

import contextlib
import http.server
import threading


class Archive:
  """What the server gives and how.

  Attributes:
    files: path ('/CODE/2012/X.Z') to bytes. etag: of all files. moods: path to a list of words,
      one taken per request: 'cut' (half of what was asked for, then the line goes dead), 'busy'
      (503), 'login' (302 to a page of another host), 'page' (200 and HTML), 'norange' (ranges are
      ignored), 'denied' (401). asked: every request, `(path, Range header)`.
  """

  def __init__(self):
    self.files, self.moods, self.asked, self.etag = {}, {}, [], '"one"'
    self.url = ''


def _handler(archive: Archive):
  class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
      pass

    def _send(self, code, body=b'', kind='application/octet-stream', cut=False, **headers):
      self.send_response(code)
      self.send_header('Content-Type', kind)
      self.send_header('Content-Length', str(len(body)))
      self.send_header('Connection', 'close')
      for name, value in headers.items():
        self.send_header(name.replace('_', '-'), value)
      self.end_headers()
      self.wfile.write(body[:len(body) // 2] if cut else body)
      self.close_connection = True

    def do_GET(self):
      path, asked = self.path, self.headers.get('Range')
      archive.asked.append((path, asked))
      queue = archive.moods.get(path, [])
      mood = queue.pop(0) if queue else ''
      if mood == 'busy':
        return self._send(503, b'later')
      if mood == 'denied':
        return self._send(401, b'who are you?')
      if mood == 'login':
        other = archive.url.replace('127.0.0.1', 'localhost')
        return self._send(302, Location=f'{other}/oauth/login')
      if mood == 'page' or path == '/oauth/login':
        return self._send(200, b'<!DOCTYPE html><html>Earthdata Login</html>', 'text/html')
      if path not in archive.files:
        return self._send(404, b'<html>not found</html>', 'text/html')
      body, more = archive.files[path], dict(ETag=archive.etag)
      if asked and mood != 'norange' and self.headers.get('If-Range') == archive.etag:
        start = int(asked.removeprefix('bytes=').rstrip('-'))
        if start >= len(body):
          return self._send(416, Content_Range=f'bytes */{len(body)}')
        more['Content_Range'] = f'bytes {start}-{len(body) - 1}/{len(body)}'
        return self._send(206, body[start:], cut=mood == 'cut', **more)
      return self._send(200, body, cut=mood == 'cut', **more)

  return Handler


@contextlib.contextmanager
def serve():
  """An `Archive` whose `url` answers while the block runs."""
  archive = Archive()
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), _handler(archive))
  archive.url = f'http://127.0.0.1:{server.server_address[1]}'
  thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.02))
  thread.start()
  try:
    yield archive
  finally:
    server.shutdown()
    thread.join()
    server.server_close()
