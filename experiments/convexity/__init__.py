"""Is squared error or log loss convex in the weights of a classifier, on real data?"""
