"""What hides objects from the views."""
