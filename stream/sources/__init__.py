"""Where packets come from: media files, recordings; camera and microphone come with the live runtime."""
