"""What looks at pictures: the classifiers behind the scores, and how one of a data set of its own is trained."""
