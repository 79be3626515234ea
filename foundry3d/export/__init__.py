"""Models as files that other runtimes read, each verified against torch before it is delivered."""
