"""Text that compresses as text does: made-up words, some much more frequent than others, in sentences and paragraphs. The same
for the same seed."""
import itertools
import random

SYLLABLES = [c + v + e for c in ("b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "st", "tr", "ch")
             for v in ("a", "e", "i", "o", "u", "ea", "é") for e in ("", "", "n", "r", "s", "t")]
WORDS, SENTENCES = 6000, 20000


class Prose:
    def __init__(self, seed):
        self.random = r = random.Random(seed)
        words = ["".join(r.choices(SYLLABLES, k=r.choice((1, 2, 2, 3)))) for _ in range(WORDS)]
        weights = list(itertools.accumulate(1 / (rank + 3) for rank in range(WORDS)))  # Zipf's law
        self.sentences = []
        for _ in range(SENTENCES):
            s = r.choices(words, cum_weights=weights, k=r.randrange(6, 20))
            self.sentences.append(s[0].capitalize() + " " + " ".join(s[1:]) + r.choice((".", ".", ".", "?", ": \"" + s[0] + "\".")))

    def title(self):
        return self.random.choice(self.sentences)[:80]

    def body(self, about):
        """Of about so many bytes, within a fifth."""
        wanted, parts, n = about * self.random.uniform(0.85, 1.15), [], 0
        while n < wanted:
            s = self.random.choice(self.sentences)
            parts.append(s + self.random.choice((" ", " ", " ", "\n\n")))
            n += len(s) + 2
        return "".join(parts).strip()
