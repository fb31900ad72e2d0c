import { describe, expect, it } from "vitest";
import { tokens } from "../../src/components/Toml";
import { parseThumbs, thumbAt } from "../../src/pages/job/vtt";

const MAP = `WEBVTT

00:00:00.000 --> 00:00:10.000
sprite.jpg#xywh=0,0,160,90

01:00:10.000 --> 01:00:20.500
sprite.jpg#xywh=160,0,160,90
`;

describe("the map of thumbnails", () => {
  it("reads times, places and names relative to itself", () => {
    const thumbs = parseThumbs(MAP, "http://host/api/v1/publications/3/files/sprite.vtt");
    expect(thumbs).toHaveLength(2);
    expect(thumbs[0]).toEqual({
      from: 0,
      to: 10,
      url: "http://host/api/v1/publications/3/files/sprite.jpg",
      x: 0,
      y: 0,
      width: 160,
      height: 90,
    });
    expect(thumbs[1]).toMatchObject({ from: 3610, to: 3620.5, x: 160 });
  });

  it("finds the thumbnail of a moment, the last one behind the end", () => {
    const thumbs = parseThumbs(MAP, "http://host/");
    expect(thumbAt(thumbs, 9.99)?.x).toBe(0);
    expect(thumbAt(thumbs, 10)?.x).toBe(160);
    expect(thumbAt(thumbs, 99_999)?.x).toBe(160);
    expect(thumbAt([], 1)).toBeUndefined();
  });

  it("takes nothing from a text that is no map", () => {
    expect(parseThumbs("<html>not found</html>", "http://host/")).toEqual([]);
  });
});

describe("the colours of TOML", () => {
  const kinds = (line: string) => tokens(line).map((t) => [t.kind, t.text]);

  it("tells keys, values, strings, tables and comments apart", () => {
    expect(kinds("[[rendition]]")).toEqual([["table", "[[rendition]]"]]);
    expect(kinds('name = "a # b" # c')).toEqual([
      ["key", "name"],
      ["", " = "],
      ["string", '"a # b"'],
      ["", " "],
      ["comment", "# c"],
    ]);
    expect(kinds("keep = true")).toContainEqual(["value", "true"]);
    expect(kinds("crf = 21")).toContainEqual(["value", "21"]);
  });

  it("loses no character", () => {
    for (const line of [
      'languages = ["eng", "rus"]  # x',
      "a.b = 1979-05-27T07:32:00Z",
      "  ] ,",
      "'",
    ]) {
      expect(
        tokens(line)
          .map((t) => t.text)
          .join(""),
      ).toBe(line);
    }
  });
});
