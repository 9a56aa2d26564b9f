"""The built-in suites of `gnndrop bench`, installed as `gnndrop.suites`: TOML files, no code."""

if __name__ != "gnndrop.suites":
    raise ImportError("import gnndrop.suites; is the repository root on sys.path?")
