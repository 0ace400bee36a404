"""What people and programs see: HTTP routes, the alarm stream and the pages."""
