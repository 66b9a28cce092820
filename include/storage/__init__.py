"""The bucket as the program sees it: whole objects, working files and tables."""
