"""Arrays in, timed feature rows out: the same objects live and over a corpus.

`face` (MediaPipe), `audio` (torchaudio), `vad` (Silero), `asr` (PocketSphinx, faster-whisper) and `text` (MiniLM) are each
usable alone. Times are integer nanoseconds on whatever axis the caller uses; nothing in here knows of queues, tasks or models.
"""
