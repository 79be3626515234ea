"""Clouds of 10^4 to 10^7 points: streamed tokens, windows, features for every point, memory."""

from foundry3d.scenes.scene import encode_scene, group_scene

__all__ = ["encode_scene", "group_scene"]
