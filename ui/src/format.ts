// Numbers and times as people read them.

const UNITS = ["B", "KB", "MB", "GB", "TB", "PB"];

/** Bytes in decimal units, three significant digits: `1.46 GB`. */
export function bytes(n: number): string {
  let value = n;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  if (unit === 0) return `${n} B`;
  const digits = value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** A span of time: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`, `3 d 4 h`. */
export function span(ms: number): string {
  if (ms < 9_950)
    return ms < 1_000 ? `${Math.max(0, ms / 1000).toFixed(1)} s` : `${(ms / 1000).toFixed(1)} s`;
  const s = Math.round(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${pad(s % 60)} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${pad(Math.floor((s % 3600) / 60))} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

/** A guess about time to come, rounded so that it does not flicker: `about 3 min`. */
export function guess(ms: number): string {
  const s = ms / 1000;
  if (s < 8) return "a few seconds";
  if (s < 55) return `${Math.ceil(s / 5) * 5} s`;
  const min = Math.round(s / 60);
  if (min < 60) return `${Math.max(1, min)} min`;
  const h = Math.floor(min / 60);
  const rest = min % 60;
  return rest && h < 10 ? `${h} h ${pad(rest)} min` : `${h} h`;
}

/** A length on a timeline: `00:01:30.500`. */
export function clock(us: number): string {
  const ms = Math.round(us / 1000);
  const s = Math.floor(ms / 1000);
  const part = ms % 1000;
  const whole = `${pad(Math.floor(s / 3600))}:${pad(Math.floor(s / 60) % 60)}:${pad(s % 60)}`;
  return part ? `${whole}.${String(part).padStart(3, "0")}` : whole;
}

function pad(n: number): string {
  return String(n).padStart(2, "0");
}

/** Percent that says 100 only when all is done. */
export function percent(fraction: number): string {
  const p = Math.min(100, Math.max(0, fraction * 100));
  return `${p >= 100 ? 100 : Math.min(99, Math.floor(p))} %`;
}

/** `3 min ago`, by two clocks of this machine. */
export function ago(then: Date, now: Date): string {
  const s = Math.round((now.getTime() - then.getTime()) / 1000);
  if (s < -5) return `in ${coarse(-s)}`;
  if (s < 5) return "just now";
  return `${coarse(s)} ago`;
}

function coarse(s: number): string {
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86_400)} d`;
}

const TIME = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hour12: false,
});
const DATE_TIME = new Intl.DateTimeFormat(undefined, {
  year: "numeric",
  month: "short",
  day: "2-digit",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hour12: false,
  timeZoneName: "short",
});
/** `14:03:12`. */
export function timeOfDay(date: Date): string {
  return TIME.format(date);
}

/** Date, time and zone. */
export function absolute(date: Date): string {
  return DATE_TIME.format(date);
}

/** Date and time to the minute, for columns: the same in every locale, and it sorts. */
export function short(date: Date): string {
  const day = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  return `${day} ${pad(date.getHours())}:${pad(date.getMinutes())}`;
}

/** A frame rate as people say it: `24000/1001` → `23.976 fps`. */
export function frameRate(rate: string): string {
  const [num, den] = rate.split("/").map(Number);
  if (!num) return rate;
  const value = num / (den || 1);
  return `${Number(value.toFixed(3))} fps`;
}

/** Bits a second: `8.2 Mb/s`. */
export function bitRate(n: number): string {
  if (n >= 999_500) return `${(n / 1e6).toFixed(n < 9.995e6 ? 2 : 1)} Mb/s`;
  return `${Math.round(n / 1000)} kb/s`;
}

/** `share:folder/name` → its parts. */
export function splitLocation(location: string): { share: string; folder: string; name: string } {
  const colon = location.indexOf(":");
  const path = location.slice(colon + 1);
  const slash = path.lastIndexOf("/");
  return {
    share: location.slice(0, Math.max(colon, 0)),
    folder: slash < 0 ? "" : path.slice(0, slash),
    name: path.slice(slash + 1),
  };
}

/** One and many: `1 task`, `3 tasks`. */
export function count(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`;
}
