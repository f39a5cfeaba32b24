"""A page for people and fragments for tools, served by Starlette."""
