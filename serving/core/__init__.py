"""What every part of the server uses: errors, call context, polling, threads."""
