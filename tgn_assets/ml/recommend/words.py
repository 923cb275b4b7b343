"""The words that reasons are written in: TGN_NOUNS. Settings read them, so nothing heavy is imported here."""

from dataclasses import dataclass

NOUNS = "user,event,had"
"""The default words of sentences."""


@dataclass(frozen=True)
class Words:
    """The words that sentences are written with; a plural has an s at its end."""

    user: str = "user"
    event: str = "event"
    had: str = "had"

    @classmethod
    def parse(cls, nouns: str) -> "Words":
        """From `user,event,had`; ValueError if these are not three words.

        >>> Words.parse("customer, product, bought")
        Words(user='customer', event='product', had='bought')
        """
        words = [word.strip() for word in nouns.split(",")]
        if len(words) != len(NOUNS.split(",")) or not all(words) or not all(map(str.isprintable, words)):
            raise ValueError(f"{nouns!r} are not three words with commas between them, such as {NOUNS}")
        return cls(*words)

    def counted(self, users: int) -> str:
        """`users` of them in words.

        >>> Words().counted(1), Words().counted(3)
        ('1 user', '3 users')
        """
        return f"{users} {self.user}" + ("" if users == 1 else "s")


WORDS = Words()
