"""Container images for a target: one that builds bundles, and a slim one that runs a bundle.

recipe.py     what goes into them: base images, packages and their exact versions
context.py    the folder that they are built from: Dockerfile, requirements, wheel, bundle
program.py    docker, podman or buildah, whichever is there
inside.py     `edgec build` within a build image
"""
