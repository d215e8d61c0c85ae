"""Methods that look at many variants of an image, one file each; see sampling."""
