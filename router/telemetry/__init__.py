"""What is counted, how it is carried, how it is shown. Counting on the request's way is adding to plain ints."""
