"""What a frame tells before any face is looked for: scene cuts, camera motion."""
