"""How the CUDA kernel is launched: a thread for each number of the output; sizes may be symbolic."""


def launch(shapes, attributes):
    rows, pixels, heads, depth = shapes["value"]
    queries, levels, points = [shapes["sampling_locations"][axis] for axis in (1, 3, 4)]
    count = rows * queries * heads * depth
    return {
        "outputs": [[rows, queries, heads * depth]],
        "grid": [(count + 255) // 256],
        "block": [256],
        "numbers": [count, pixels, heads, depth, queries, levels, points],
    }
