"""`python -m beatd.config.settings` prints `docs/settings.md`."""

from beatd.config.settings.page import page

if __name__ == "__main__":
    print(page(), end="")
