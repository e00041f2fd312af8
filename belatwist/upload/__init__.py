"""From pending samples to the server: names, lines, chunks and policy are pure; the rest acts."""
