"""The Python SDK of Convlens: what did this VGG16 look at?"""
