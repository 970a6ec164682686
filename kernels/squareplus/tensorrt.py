"""How the CUDA kernel is launched; sizes may be symbolic."""


def launch(shapes, attributes):
    count = shapes["x"][0]
    for size in shapes["x"][1:]:
        count = count * size
    return {
        "outputs": [shapes["x"]],
        "grid": [(count + 255) // 256],
        "block": [256],
        "numbers": [count, float_bits(attributes["b"])],
    }
