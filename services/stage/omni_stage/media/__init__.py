"""Encoded media to pixels and samples. The bytes are hostile: every decoder is told its format and given a budget."""

from omni_stage.media.audio import audio_blocks, decode_audio
from omni_stage.media.budget import MediaBudget
from omni_stage.media.image import decode_image
from omni_stage.media.video import Video, decode_video

__all__ = ["MediaBudget", "Video", "audio_blocks", "decode_audio", "decode_image", "decode_video"]
