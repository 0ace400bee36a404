"""Browsers and programs in words, from what they say of themselves."""

from typing import Final

_LONGEST: Final = 60
# In this order: browsers and systems say that they are others as well.
_BROWSERS: Final = (("MicroMessenger", "WeChat"), ("Edg", "Edge"), ("Firefox", "Firefox"),
                    ("Chrome", "Chrome"), ("Safari", "Safari"))  # fmt: skip
_SYSTEMS: Final = (("HarmonyOS", "HarmonyOS"), ("Android", "Android"), ("iPhone", "iPhone"),
                   ("iPad", "iPad"), ("Windows", "Windows"), ("Macintosh", "macOS"),
                   ("Linux", "Linux"))  # fmt: skip


def device_name(says: str) -> str:
    """Return in words what a User-Agent says: browser and system, or its beginning as it is."""
    system = next((name for sign, name in _SYSTEMS if sign in says), "")
    browser = next((name for sign, name in _BROWSERS if sign in says), "")
    if system or browser:
        return " · ".join(filter(None, (browser, system)))
    return "".join(letter for letter in says if letter.isprintable())[:_LONGEST]
