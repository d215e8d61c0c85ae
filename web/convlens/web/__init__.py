"""The HTTP gateway: the SDK's calls as JSON, pictures and arrays over HTTP, and a page to explore maps in a browser."""
