"""Plain networks that turn data into features, and codes into the parameters of a likelihood.

``mlp`` serves data of any shape; ``conv`` serves audio, images and volumes, ``(C, *spatial)``.
"""
