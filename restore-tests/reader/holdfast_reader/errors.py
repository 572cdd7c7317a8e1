"""What can be wrong, in the words of section 3 (Judgement)."""


class Refused(Exception):
    """Something read is not what the format says; the text says what."""


class Damaged(Refused):
    """Name or checksum do not fit the bytes."""


class WrongKey(Refused):
    """The commitment does not fit: another key made this."""


class Missing(Refused):
    """Something that is needed is not there."""
