"""What a run hands over, its file and its picture."""
