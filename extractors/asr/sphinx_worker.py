"""The child process of `extractors.asr.sphinx`: PCM in on the standard input, words out as JSON lines.

It is a process of its own because PocketSphinx keeps Python's global lock for as long as it decodes, seconds at a time, and
would stop every other thread. Run by path; imports nothing of this project. It ends when its input does.

Output, at the start: the line `ready`.
Input, again and again: one byte that says what follows, a little-endian uint32 count of bytes, and that many bytes of 16 kHz
mono int16. `p` is the next piece of a stretch of speech that still lasts; `w` a whole stretch, after whatever pieces of it.
Output for each: one line, a JSON list of [word, first frame, last frame, posterior probability] for all that has come of the
stretch, frames of 10 ms. The posterior means something for whole stretches only.
"""

import json
import os
import struct
import sys

import pocketsphinx

os.nice(5)  # words may come late, and what is shown meanwhile may not

HEADER = struct.Struct("<cI")
# How many hidden Markov models may be weighed at once; unbounded, speech that fits none of them, as of another language, costs
# up to three times as much, for words that are no better.
FOR_FINAL, FOR_PARTIAL = 5000, 3000

whole = pocketsphinx.Decoder(loglevel="FATAL", maxhmmpf=FOR_FINAL)
# For words while the stretch lasts, the two passes that run when it has ended are no use.
partial = pocketsphinx.Decoder(loglevel="FATAL", maxhmmpf=FOR_PARTIAL, fwdflat=False, bestpath=False)
in_pieces = False
sys.stdout.write("ready\n")
sys.stdout.flush()
while header := sys.stdin.buffer.read(HEADER.size):
    kind, count = HEADER.unpack(header)
    samples = sys.stdin.buffer.read(count)
    if kind == b"p":
        if not in_pieces:
            partial.start_utt()
        partial.process_raw(samples, no_search=False, full_utt=False)
        in_pieces = True
        segments = partial.seg()
    else:
        if in_pieces:
            partial.end_utt()  # it keeps its running cepstral mean for the next stretch
        in_pieces = False
        # Heard at once, the stretch's own cepstral mean is taken off, which leaves fewer errors than the running mean does
        # (benchmarks/asr.py, figures in docs/benchmarks.md). A fresh front end forgets the sound before, so that the words of a
        # stretch depend on it alone.
        whole.reinit_feat()
        whole.start_utt()
        whole.process_raw(samples, no_search=False, full_utt=True)
        whole.end_utt()
        segments = whole.seg()
    words = [[s.word, s.start_frame, s.end_frame, s.prob] for s in segments or ()]  # None where nothing at all was recognised
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()
