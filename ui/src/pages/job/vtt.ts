// The map of a thumbnail sprite: WebVTT cues whose text is `sprite.jpg#xywh=x,y,w,h`.

export interface Thumb {
  /** Seconds. */
  from: number;
  to: number;
  url: string;
  x: number;
  y: number;
  width: number;
  height: number;
}

const CUE = /^((?:\d+:)?\d{2}:\d{2}\.\d{3})\s+-->\s+((?:\d+:)?\d{2}:\d{2}\.\d{3})/;

/** Reads a map; names in it are relative to where it came from. */
export function parseThumbs(text: string, base: string): Thumb[] {
  const out: Thumb[] = [];
  let cue: RegExpExecArray | null = null;
  for (const line of text.split(/\r?\n/)) {
    const timing = CUE.exec(line);
    if (timing) {
      cue = timing;
      continue;
    }
    const place = /^(.*)#xywh=(\d+),(\d+),(\d+),(\d+)\s*$/.exec(line);
    if (cue && place) {
      const [x, y, width, height] = place.slice(2).map(Number) as [number, number, number, number];
      out.push({
        from: seconds(cue[1]!),
        to: seconds(cue[2]!),
        url: new URL(place[1]!, base).href,
        x,
        y,
        width,
        height,
      });
      cue = null;
    }
  }
  return out;
}

function seconds(time: string): number {
  return time.split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
}

/** The thumbnail of a moment; the last one for times behind the end. */
export function thumbAt(thumbs: Thumb[], at: number): Thumb | undefined {
  return thumbs.find((thumb) => at < thumb.to) ?? thumbs.at(-1);
}
