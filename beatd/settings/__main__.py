"""`python -m beatd.settings` prints `docs/settings.md`."""

from beatd.settings.page import page

if __name__ == "__main__":
    print(page(), end="")
