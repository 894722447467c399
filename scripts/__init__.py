"""Small programs around the project; the shell scripts beside them are what CI calls."""
