"""What hides objects from the views, and what they look like where they are hidden."""
