"""What `shelfwise demo` shows of a finished run, scene by scene, each computed while it is shown."""
