"""What the commands say."""


def people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"
