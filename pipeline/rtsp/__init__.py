"""RTSP out: a stream packed for RTP once, served to players and pushed to servers."""
