"""The command line: a command a file. `app.main` runs it."""
