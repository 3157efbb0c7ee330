"""Says what `coordinator schema` has to say, out of the same models but by other means.

Usage: aws_schema.py WHEEL SERVICE.OPERATION.SIDE...

Prints a JSON object: for each name, under `browser` what the `cloudtrail-schema` of the package
aws-cloudtrail-events-schema prints (null where it fails), and under `whole` all of the shape.
"""

import gzip
import json
import sys
import zipfile


def first_small(name):
    return name[:1].lower() + name[1:]


class Service:
    def __init__(self, wheel, name):
        files = [
            file for file in wheel.namelist() if file.startswith(f"botocore/data/{name}/") and "/service-2.json" in file
        ]
        self.model = json.loads(gzip.decompress(wheel.read(max(files))))
        self.shapes = self.model["shapes"]

    def side(self, operation, side):
        return self.model["operations"][operation][side]["shape"]

    def browser(self, name, around=()):
        """Structures become objects of their members; all else stays as the model has it."""
        if name in around:
            raise RecursionError(name)
        shape = self.shapes[name]
        if "members" not in shape:
            return shape
        return {
            first_small(key): self.browser(member["shape"], (*around, name)) for key, member in shape["members"].items()
        }

    def whole(self, reference, required=False, around=()):
        name = reference["shape"]
        shape = self.shapes[name]
        place = {f"${key}": value for key, value in reference.items() if key != "shape"}
        if required:
            place["$required"] = True
        if name in around:
            return {"type": shape["type"], **place, "$cycle": name}
        around = (*around, name)
        if "members" in shape:
            node = {
                f"${key}": value for key, value in shape.items() if key not in ("type", "members", "required")
            }
            node.update(place)
            for key, member in shape["members"].items():
                node[first_small(key)] = self.whole(member, key in shape.get("required", []), around)
            return node
        parts = ("member", "key", "value")
        node = {key: value for key, value in shape.items() if key not in (*parts, "required")}
        node.update(place)
        node.update({part: self.whole(shape[part], False, around) for part in parts if part in shape})
        return node


def main():
    services = {}
    answers = {}
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        for name in sys.argv[2:]:
            service, operation, side = name.split(".")
            if service not in services:
                services[service] = Service(wheel, service)
            service = services[service]
            shape = service.side(operation, side)
            try:
                browser = service.browser(shape)
            except RecursionError:
                browser = None
            answers[name] = {"browser": browser, "whole": service.whole({"shape": shape})}
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
