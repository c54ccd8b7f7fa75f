"""Recurrent backbones: step modules for `models.rollout.rollout_frames`, one file each."""
