"""What end-to-end tests work with: the real server as a process, a browser, a connection that can be cut."""
