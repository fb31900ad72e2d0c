// Looking at what came out: the preview and every rendition, with thumbnails to go by.

import { SegmentedControl, Select } from "@mantine/core";
import { useElementSize } from "@mantine/hooks";
import { IconMovie } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { type PointerEvent, useEffect, useRef, useState } from "react";
import type { Schemas } from "../../api/client";
import { Copy } from "../../components/Copy";
import { isMoving } from "../../components/JobBits";
import { Note } from "../../components/Messages";
import { Badge } from "../../components/State";
import { bytes, clock, count } from "../../format";
import { PUBLICATION } from "../../words";
import { PUBLICATION_ROLE, placeOf } from "./Files";
import { parseThumbs, type Thumb, thumbAt } from "./vtt";

type Publication = Schemas["Publication"];

interface Playable {
  name: string;
  url: string;
  mime: string;
  size: number;
}

/** What can be played, the small preview first, then the renditions as they were published. */
export function playables(publications: Publication[]): Playable[] {
  const of = (role: string) =>
    publications
      .filter((p) => p.role === role && p.state === "published")
      .flatMap((p) => p.files)
      .flatMap((file) =>
        file.url && file.mime.startsWith("video/")
          ? [{ name: file.name, url: file.url, mime: file.mime, size: file.size }]
          : [],
      );
  return [
    ...of("preview").map((file) => ({ ...file, name: "Preview" })),
    ...of("output").map((file) => ({ ...file, name: file.name.replace(/\.[^.]+$/, "") })),
  ];
}

/** The address of a file of the published preview, by its name. */
export function previewFile(publications: Publication[], name: RegExp): string | undefined {
  const preview = publications.find((p) => p.role === "preview" && p.state === "published");
  return preview?.files.find((file) => name.test(file.name))?.url ?? undefined;
}

export const POSTER = /(^|\/)poster\.jpe?g$/;

export function Result({ detail }: { detail: Schemas["JobDetail"] }) {
  const { publications, job } = detail;
  const files = playables(publications);
  return (
    <section className="panel" aria-label="Result">
      {files.length > 0 ? (
        <Player
          files={files}
          poster={previewFile(publications, POSTER)}
          map={previewFile(publications, /\.vtt$/)}
        />
      ) : (
        <div className="no-player">
          <IconMovie size={30} stroke={1.3} />
          <span>
            {isMoving(job)
              ? "The preview can be played here as soon as it is published."
              : "There is nothing to play."}
          </span>
        </div>
      )}
      {publications.length > 0 && (
        <div className="panel-body stack" style={{ gap: 8 }}>
          {publications.map((publication) => (
            <div key={publication.id}>
              <div className="row">
                <span className="strong clip">
                  {PUBLICATION_ROLE[publication.role] ?? publication.role}
                </span>
                <span className="push small dim nowrap">
                  {count(publication.files.length, "file")},{" "}
                  {bytes(publication.files.reduce((n, file) => n + file.size, 0))}
                </span>
                <Badge word={PUBLICATION[publication.state]} />
              </div>
              <div className="row small dim" style={{ gap: 3 }}>
                <span className="clip" title={placeOf(publication)}>
                  {placeOf(publication)}
                </span>
                <Copy value={placeOf(publication)} label="Copy the folder" />
              </div>
            </div>
          ))}
        </div>
      )}
    </section>
  );
}

function Player({
  files,
  poster,
  map,
}: {
  files: Playable[];
  poster: string | undefined;
  map: string | undefined;
}) {
  const [chosen, setChosen] = useState(files[0]!.url);
  const file = files.find((f) => f.url === chosen) ?? files[0]!;
  const video = useRef<HTMLVideoElement>(null);
  const [fault, setFault] = useState<string>();
  const [at, setAt] = useState(0);
  const [length, setLength] = useState(0);
  // Another rendition goes on where the one before stood.
  const resume = useRef<{ at: number; playing: boolean }>(undefined);

  const choose = (url: string) => {
    const now = video.current;
    if (now) resume.current = { at: now.currentTime, playing: !now.paused };
    setFault(undefined);
    setChosen(url);
  };

  return (
    <>
      <div className="player">
        {/* biome-ignore lint/a11y/useMediaCaption: subtitles are not among the published files yet */}
        <video
          key={file.url}
          ref={video}
          src={file.url}
          poster={poster}
          controls
          playsInline
          preload="metadata"
          data-testid="player"
          onLoadedMetadata={(event) => {
            const own = event.currentTarget;
            setLength(Number.isFinite(own.duration) ? own.duration : 0);
            const from = resume.current;
            resume.current = undefined;
            if (from && from.at > 0) own.currentTime = Math.min(from.at, own.duration || from.at);
            // Browsers may forbid playing without a click; then the person clicks.
            if (from?.playing) own.play().catch(() => undefined);
          }}
          onTimeUpdate={(event) => setAt(event.currentTarget.currentTime)}
          onError={(event) => setFault(faultWords(event.currentTarget.error))}
        />
        {map && (
          <Strip
            map={map}
            at={at}
            length={length}
            seek={(to) => {
              if (video.current) video.current.currentTime = to;
            }}
          />
        )}
      </div>
      {fault && (
        <div className="panel-body" style={{ paddingBottom: 0 }}>
          <Note tone="warn" role="alert" title={fault}>
            <a href={file.url} download>
              Download the file
            </a>
          </Note>
        </div>
      )}
      <div className="panel-body row" style={{ borderBottom: "1px solid var(--line-soft)" }}>
        {files.length <= 6 ? (
          <div style={{ overflowX: "auto" }}>
            <SegmentedControl
              size="xs"
              aria-label="What to play"
              value={file.url}
              onChange={choose}
              data={files.map((f) => ({ value: f.url, label: f.name }))}
            />
          </div>
        ) : (
          <Select
            aria-label="What to play"
            w={180}
            value={file.url}
            onChange={(value) => value && choose(value)}
            data={files.map((f) => ({ value: f.url, label: f.name }))}
          />
        )}
        <span className="push small dim nowrap">{bytes(file.size)}</span>
      </div>
    </>
  );
}

function faultWords(error: MediaError | null): string {
  switch (error?.code) {
    case MediaError.MEDIA_ERR_NETWORK:
      return "The file could not be read to its end.";
    case MediaError.MEDIA_ERR_DECODE:
    case MediaError.MEDIA_ERR_SRC_NOT_SUPPORTED:
      return "This browser cannot play the file.";
    default:
      return "The file cannot be played.";
  }
}

/** Height of the strip of thumbnails in CSS pixels. */
const STRIP = 42;

function Strip({
  map,
  at,
  length,
  seek,
}: {
  map: string;
  at: number;
  length: number;
  seek: (to: number) => void;
}) {
  const { ref, width } = useElementSize<HTMLButtonElement>();
  const [hover, setHover] = useState<number>();
  const thumbs = useQuery({
    queryKey: ["thumbs", map],
    queryFn: async ({ signal }) => {
      const answer = await fetch(map, { signal });
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
      return parseThumbs(await answer.text(), new URL(map, location.href).href);
    },
    staleTime: Number.POSITIVE_INFINITY,
  }).data;
  const first = thumbs?.[0];
  const sprite = useImageSize(first?.url);
  if (!thumbs || !first || !sprite) return null;
  const end = length || thumbs.at(-1)!.to;
  const cell = (first.width * STRIP) / first.height;
  const cells = Math.max(1, Math.ceil(width / cell));
  const timeOf = (event: PointerEvent) => {
    const box = event.currentTarget.getBoundingClientRect();
    return (Math.min(Math.max(event.clientX - box.left, 0), box.width) / box.width) * end;
  };
  const hovered = hover === undefined ? undefined : thumbAt(thumbs, hover);

  return (
    <>
      {hovered && hover !== undefined && (
        <div
          className="thumb"
          style={{
            ...region(hovered, sprite, 1),
            left: Math.min(
              Math.max((hover / end) * width, hovered.width / 2 + 4),
              width - hovered.width / 2 - 4,
            ),
          }}
        >
          <b>{clock(Math.floor(hover) * 1e6)}</b>
        </div>
      )}
      <button
        ref={ref}
        type="button"
        className="strip"
        aria-label="Thumbnails; click to go there"
        tabIndex={-1}
        onPointerMove={(event) => setHover(timeOf(event))}
        onPointerLeave={() => setHover(undefined)}
        onPointerDown={(event) => seek(timeOf(event))}
      >
        {Array.from({ length: cells }, (_, n) => {
          const thumb = thumbAt(thumbs, ((n + 0.5) / cells) * end);
          return (
            thumb && (
              <span
                // biome-ignore lint/suspicious/noArrayIndexKey: places of a strip never move
                key={n}
                style={{ ...region(thumb, sprite, STRIP / thumb.height), flex: "none" }}
              />
            )
          );
        })}
        {end > 0 && <i style={{ left: `${Math.min(100, (at / end) * 100)}%` }} />}
      </button>
    </>
  );
}

/** The style that shows one thumbnail of a sprite. */
function region(thumb: Thumb, sprite: { width: number; height: number }, scale: number) {
  return {
    width: thumb.width * scale,
    height: thumb.height * scale,
    backgroundImage: `url("${thumb.url}")`,
    backgroundSize: `${sprite.width * scale}px ${sprite.height * scale}px`,
    backgroundPosition: `-${thumb.x * scale}px -${thumb.y * scale}px`,
  };
}

function useImageSize(url: string | undefined) {
  const [size, setSize] = useState<{ width: number; height: number }>();
  useEffect(() => {
    if (!url) return;
    const image = new Image();
    image.onload = () => setSize({ width: image.naturalWidth, height: image.naturalHeight });
    image.src = url;
    return () => {
      image.onload = null;
    };
  }, [url]);
  return size;
}
