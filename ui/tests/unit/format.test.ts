import { describe, expect, it } from "vitest";
import {
  ago,
  bitRate,
  bytes,
  clock,
  frameRate,
  guess,
  percent,
  short,
  span,
  splitLocation,
} from "../../src/format";

describe("numbers and times as people read them", () => {
  it.each([
    [0, "0 B"],
    [999, "999 B"],
    [1000, "1.00 KB"],
    [999_499, "999 KB"],
    [999_500, "1.00 MB"],
    [8_412_339_127, "8.41 GB"],
    [48e12, "48.0 TB"],
  ])("writes %d bytes as %s", (n, words) => expect(bytes(n)).toBe(words));

  it.each([
    [0, "0.0 s"],
    [940, "0.9 s"],
    [9_940, "9.9 s"],
    [9_960, "10 s"],
    [59_499, "59 s"],
    [59_500, "1 min 00 s"],
    [185_000, "3 min 05 s"],
    [7_620_000, "2 h 07 min"],
    [273_600_000, "3 d 4 h"],
  ])("writes a span of %d ms as %s", (ms, words) => expect(span(ms)).toBe(words));

  it.each([
    [3_000, "a few seconds"],
    [31_000, "35 s"],
    [100_000, "2 min"],
    [5_400_000, "1 h 30 min"],
    [7_200_000, "2 h"],
  ])("guesses %d ms as %s", (ms, words) => expect(guess(ms)).toBe(words));

  it("says 100 % only when all is done", () => {
    expect(percent(0.9999)).toBe("99 %");
    expect(percent(1)).toBe("100 %");
    expect(percent(-0.1)).toBe("0 %");
  });

  it("writes moments relative to now, also those to come", () => {
    const now = new Date("2026-11-24T12:00:00Z");
    const at = (s: number) => new Date(now.getTime() - s * 1000);
    expect(ago(at(2), now)).toBe("just now");
    expect(ago(at(200), now)).toBe("3 min ago");
    expect(ago(at(90_000), now)).toBe("1 d ago");
    expect(ago(at(-7_200), now)).toBe("in 2 h");
  });

  it("writes dates so that they sort", () => {
    expect(short(new Date(2026, 0, 5, 7, 3))).toBe("2026-01-05 07:03");
  });

  it("keeps rational frame rates exact and short", () => {
    expect(frameRate("24000/1001")).toBe("23.976 fps");
    expect(frameRate("25/1")).toBe("25 fps");
    expect(frameRate("odd")).toBe("odd");
  });

  it("writes bit rates and positions", () => {
    expect(bitRate(384_000)).toBe("384 kb/s");
    expect(bitRate(184_000_000)).toBe("184.0 Mb/s");
    expect(clock(1_422_500_000)).toBe("00:23:42.500");
    expect(clock(20_000_000)).toBe("00:00:20");
  });

  it("splits a location at its first colon", () => {
    expect(splitLocation("in:a/b: c.mov")).toEqual({ share: "in", folder: "a", name: "b: c.mov" });
    expect(splitLocation("in:film.mov")).toEqual({ share: "in", folder: "", name: "film.mov" });
  });
});
