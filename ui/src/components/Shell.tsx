// The frame around all pages of a signed-in person: navigation, and whether what is
// shown can be believed.

import { ActionIcon, Button, Menu, Tooltip, useMantineColorScheme } from "@mantine/core";
import { useHotkeys } from "@mantine/hooks";
import { notifications } from "@mantine/notifications";
import {
  IconAdjustments,
  IconDeviceDesktop,
  IconListDetails,
  IconLogout,
  IconMoon,
  IconPlus,
  IconServer2,
  IconSettings,
  IconSun,
  IconUser,
} from "@tabler/icons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, Outlet, useNavigate } from "@tanstack/react-router";
import { type ReactNode, useEffect, useRef } from "react";
import { ApiError, api, messageOf } from "../api/client";
import { startLive, useConnection } from "../api/live";
import { queries } from "../api/queries";
import { timeOfDay } from "../format";
import { sentence, type Tone } from "../words";
import { Loading } from "./Messages";
import { Ago } from "./Time";

/** Two keys in so many milliseconds are one command. */
const SEQUENCE = 1_000;

const PAGES = [
  { to: "/jobs", name: "Jobs", icon: IconListDetails },
  { to: "/ingest", name: "Ingest", icon: IconPlus },
  { to: "/profiles", name: "Profiles", icon: IconAdjustments },
  { to: "/system", name: "System", icon: IconServer2 },
  { to: "/settings", name: "Settings", icon: IconSettings },
] as const;

export function Shell() {
  const connection = useConnection();
  const navigate = useNavigate();
  const me = useQuery({
    ...queries.me(),
    // An account that could not be read is asked for until it can.
    refetchInterval: (query) => (query.state.data ? false : 2_000),
  });
  const away = connection.state === "degraded" || connection.state === "disconnected";
  useEffect(() => startLive(), []);
  const pressedG = useRef(0);
  useHotkeys([
    [
      "g",
      () => {
        pressedG.current = Date.now();
      },
    ],
    [
      "j",
      () => {
        if (Date.now() - pressedG.current < SEQUENCE) void navigate({ to: "/jobs" });
      },
      // The same key goes through the rows of a table.
      { preventDefault: false },
    ],
    ["n", () => void navigate({ to: "/ingest" })],
    ["/", () => document.querySelector<HTMLInputElement>("[data-search]")?.focus()],
  ]);

  return (
    <div className="frame" data-stale={away || undefined}>
      <aside className="side">
        <Brand />
        <nav className="nav" aria-label="Pages">
          <NavLinks />
        </nav>
        <div className="side-foot">
          <LinkState />
          <Account name={me.data?.name} />
        </div>
      </aside>
      <header className="topbar">
        <Brand />
        <LinkState />
        <Account name={me.data?.name} small />
      </header>
      <main className="main">
        <Banner />
        {me.data ? (
          <Outlet />
        ) : (
          <div className="page">
            <div className="panel">
              <Loading rows={8} />
            </div>
          </div>
        )}
      </main>
      <nav className="tabbar" aria-label="Pages">
        {PAGES.map((page) => (
          <Link key={page.to} to={page.to} activeProps={{ "aria-current": "page" }}>
            <page.icon size={20} stroke={1.6} />
            {page.name}
          </Link>
        ))}
      </nav>
    </div>
  );
}

function Brand() {
  return (
    <Link to="/jobs" className="brand">
      <img src={`${import.meta.env.BASE_URL}trix.svg`} width={22} height={22} alt="" />
      trix
    </Link>
  );
}

function NavLinks() {
  const jobs = useQuery(queries.system()).data?.jobs ?? {};
  const active = ["accepted", "inspecting", "running", "cancelling", "waiting_gate", "paused"]
    .map((state) => jobs[state] ?? 0)
    .reduce((a, b) => a + b, 0);
  return PAGES.map((page) => (
    <Link key={page.to} to={page.to} activeProps={{ "aria-current": "page" }}>
      <page.icon size={17} stroke={1.7} />
      {page.name}
      {page.to === "/jobs" && active > 0 && (
        <span className="n" data-tone="busy" title="Jobs that are not finished">
          {active}
        </span>
      )}
    </Link>
  ));
}

const LINK: Record<string, { tone: Tone; text: string; hint: string }> = {
  connecting: { tone: "mute", text: "Connecting", hint: "Waiting for the server's first word" },
  live: { tone: "good", text: "Live", hint: "What you see is at most a second old" },
  degraded: { tone: "warn", text: "Database away", hint: "What you see may be old" },
  disconnected: { tone: "bad", text: "No connection", hint: "What you see may be old" },
};

function LinkState() {
  const link = LINK[useConnection().state]!;
  return (
    <Tooltip label={link.hint} position="top-start">
      <div className="link-state" data-tone={link.tone} data-testid="link-state">
        <span className="dot" />
        {link.text}
      </div>
    </Tooltip>
  );
}

function Banner() {
  const connection = useConnection();
  if (connection.state !== "degraded" && connection.state !== "disconnected") return null;
  const bad = connection.state === "disconnected";
  return (
    <div className="banner" data-tone={bad ? "bad" : "warn"} role="alert" data-testid="banner">
      <b>{bad ? "The server does not answer" : "The database is away"}</b>
      <span>
        since {timeOfDay(connection.since)} (<Ago at={connection.since.toISOString()} />)
      </span>
      <span>
        {bad
          ? "What you see is the state of that time. Workers go on with what they run."
          : `${reason(connection.reason)} What you see is the state of that time; workers go on with what they run.`}
      </span>
      <span>It goes on by itself.</span>
    </div>
  );
}

/** The reason without what the headline says already. */
function reason(text: string): string {
  return sentence(text.replace(/^the database is away:?\s*/i, ""));
}

function Account({ name, small }: { name?: string; small?: boolean }) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  const logOut = async () => {
    try {
      await api.logOut();
    } catch (error) {
      // A session that is over already is what was wanted.
      if (!(error instanceof ApiError && error.status === 401)) {
        notifications.show({ color: "red", title: "Not logged out", message: messageOf(error) });
        return;
      }
    }
    client.clear();
    await navigate({ to: "/login" });
  };
  const scheme = (value: "auto" | "light" | "dark", text: string, icon: ReactNode) => (
    <Menu.Item
      leftSection={icon}
      onClick={() => setColorScheme(value)}
      rightSection={colorScheme === value ? "✓" : undefined}
    >
      {text}
    </Menu.Item>
  );
  return (
    <Menu position={small ? "bottom-end" : "top-start"} width={190} shadow="md">
      <Menu.Target>
        {small ? (
          <ActionIcon variant="subtle" color="gray" size="lg" aria-label="Account and appearance">
            <IconUser size={18} />
          </ActionIcon>
        ) : (
          <Button
            variant="subtle"
            color="gray"
            size="xs"
            justify="flex-start"
            leftSection={<IconUser size={15} />}
            title="Account and appearance"
          >
            <span className="clip">{name ?? "…"}</span>
          </Button>
        )}
      </Menu.Target>
      <Menu.Dropdown>
        {small && <Menu.Label>{name}</Menu.Label>}
        <Menu.Label>Appearance</Menu.Label>
        {scheme("auto", "As the system", <IconDeviceDesktop size={15} />)}
        {scheme("light", "Light", <IconSun size={15} />)}
        {scheme("dark", "Dark", <IconMoon size={15} />)}
        <Menu.Divider />
        <Menu.Item leftSection={<IconLogout size={15} />} onClick={() => void logOut()}>
          Log out
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}
