"""The one table that places every corpus's labels on CMU-MOSI's scale, from -3 (strongly negative) to 3 (strongly positive).

MOSI is the measure because its labels are what the scale is defined by: the mean of annotators who chose one of seven marks.
The others are placed by these reasons:

- SST-5 has five marks over the same range of meaning, "very negative" to "very positive". MOSI's annotators seldom all agree on
  the outermost mark, so the outer marks stand at 2.4, not at 3, and the steps are even.
- MELD has classes of sentiment and, within them, emotions. A line of a comedy is seldom an outright verdict: the classes stand
  around 1.6; anger and disgust are stronger than sadness, fear weaker, and surprise, which is short, weaker still.
- RAVDESS is acted at two intensities, and the strong one stands 0.6 further out. Calm is pleasant but quiet. Surprise has no
  valence of its own: what surprises may be good or bad, so it has no place on the scale.
- FER+ has ten votes a face; a face stands at their mean, with the values below. Votes for surprise, for "unknown" and for "no
  face" say nothing of the valence and are left out; a face where these are half or more has no place.

Which emotions are pleasant: J. Russell, "A Circumplex Model of Affect", J. Personality and Social Psychology 39(6), 1980. How
far out they stand is our choice, made once and not tuned.
"""

SST: dict[int, float] = {0: -2.4, 1: -1.2, 2: 0.0, 3: 1.2, 4: 2.4}

# By (sentiment, emotion), as the corpus writes them.
MELD: dict[tuple[str, str], float] = {
    ("positive", "joy"): 1.8,
    ("positive", "surprise"): 1.2,
    ("neutral", "neutral"): 0.0,
    ("negative", "surprise"): -1.0,
    ("negative", "fear"): -1.2,
    ("negative", "sadness"): -1.6,
    ("negative", "disgust"): -1.8,
    ("negative", "anger"): -1.8,
}

# At normal intensity.
RAVDESS: dict[str, float] = {
    "neutral": 0.0,
    "calm": 0.8,
    "happy": 1.8,
    "sad": -1.6,
    "angry": -1.8,
    "fearful": -1.4,
    "disgust": -1.6,
}
RAVDESS_STRONG = 0.6  # further out

FERPLUS: dict[str, float] = {
    "neutral": 0.0,
    "happiness": 2.0,
    "sadness": -1.6,
    "anger": -1.8,
    "disgust": -1.8,
    "fear": -1.4,
    "contempt": -1.2,
}
