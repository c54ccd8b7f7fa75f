"""A residual trunk written in PyTorch with torchvision's names, to compare with."""

import torch


class Block(torch.nn.Module):

  def __init__(self, inputs, features, stride):
    super().__init__()
    conv = lambda i, k, s: torch.nn.Conv2d(i, features, k, s, k // 2, bias=False)
    self.conv1, self.conv2 = conv(inputs, 3, stride), conv(features, 3, 1)
    self.bn1, self.bn2 = torch.nn.BatchNorm2d(features), torch.nn.BatchNorm2d(features)
    self.downsample = None
    if stride > 1 or inputs != features:
      self.downsample = torch.nn.Sequential(
          conv(inputs, 1, stride), torch.nn.BatchNorm2d(features))

  def forward(self, x):
    y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
    return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Trunk(torch.nn.Module):

  def __init__(self, inputs, depths, widths):
    super().__init__()
    self.conv1 = torch.nn.Conv2d(inputs, widths[0], 7, 2, 3, bias=False)
    self.bn1 = torch.nn.BatchNorm2d(widths[0])
    self.stages = len(depths)
    before = widths[0]
    for i, (depth, width) in enumerate(zip(depths, widths)):
      blocks = [Block(before if j == 0 else width, width, 2 if i and j == 0 else 1)
                for j in range(depth)]
      setattr(self, f'layer{i + 1}', torch.nn.Sequential(*blocks))
      before = width
    self.fc = torch.nn.Linear(before, 7)

  def forward(self, x):
    x = torch.relu(self.bn1(self.conv1(x)))
    x = torch.nn.functional.max_pool2d(x, 3, 2, 1)
    for i in range(self.stages):
      x = getattr(self, f'layer{i + 1}')(x)
    return x.mean((2, 3))


def drawn(inputs=3, depths=(1, 2), widths=(4, 6), seed=0):
  """A trunk whose norms are not at their start, so that a mistake in their mapping shows."""
  torch.manual_seed(seed)
  trunk = Trunk(inputs, depths, widths)
  with torch.no_grad():
    for name, value in trunk.state_dict().items():
      if 'num_batches' not in name and value.ndim == 1:
        value.copy_(torch.rand_like(value) + 0.5)
  return trunk
