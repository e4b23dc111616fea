"""The part that computes: it alone imports CTranslate2, faster-whisper and what they need."""
