"""The child process of `extractors.asr.sphinx`: PCM in on the standard input, words out as JSON lines.

It is a process of its own because PocketSphinx keeps Python's global lock for as long as it decodes, seconds at a time, and
would stop every other thread. Run by path; imports nothing of this project. It ends when its input does.

Input, again and again: a little-endian uint32 count of bytes, then that many bytes of 16 kHz mono int16.
Output: one line, a JSON list of [word, first frame, last frame, posterior probability], frames of 10 ms.
"""

import json
import struct
import sys

import pocketsphinx

decoder = pocketsphinx.Decoder(loglevel="FATAL")
sys.stdout.write("ready\n")
sys.stdout.flush()
while header := sys.stdin.buffer.read(4):
    samples = sys.stdin.buffer.read(struct.unpack("<I", header)[0])
    decoder.start_utt()
    # Heard at once, the stretch's own cepstral mean is taken off: a fifth to a quarter fewer errors than in pieces with the
    # running mean, at the same cost (benchmarks/asr.py, figures in docs/benchmarks.md).
    decoder.process_raw(samples, no_search=False, full_utt=True)
    decoder.end_utt()
    segments = decoder.seg() or ()  # None where nothing at all was recognised
    sys.stdout.write(json.dumps([[s.word, s.start_frame, s.end_frame, s.prob] for s in segments]) + "\n")
    sys.stdout.flush()
