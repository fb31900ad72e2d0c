import "@mantine/core/styles.css";
import "@mantine/notifications/styles.css";
import "./app.css";

import { MantineProvider } from "@mantine/core";
import { Notifications } from "@mantine/notifications";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { setNonce } from "get-nonce";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { onApiError } from "./api/client";
import { makeLive } from "./api/live";
import { retryRead } from "./api/queries";
import { makeRouter } from "./router";
import { theme, variables } from "./theme";

const client = new QueryClient({
  defaultOptions: {
    queries: {
      retry: retryRead,
      staleTime: 2_000,
      refetchOnWindowFocus: true,
      networkMode: "always",
    },
    // A write is repeated by the page that made it, which knows whether that is safe.
    mutations: { retry: false, networkMode: "always" },
  },
});

const router = makeRouter(client);

function toLogIn(): void {
  if (router.state.location.pathname === "/login") return;
  live.stop();
  client.clear();
  void router.navigate({ to: "/login", search: { next: router.state.location.href } });
}

const live = makeLive(client, toLogIn);
onApiError((error) => {
  if (error.status === 401) toLogIn();
});

const nonce = document.querySelector<HTMLMetaElement>('meta[property="csp-nonce"]')?.nonce ?? "";
// The style element that keeps the page still behind a dialogue is made by a library of Mantine's.
setNonce(nonce);

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <MantineProvider
      theme={theme}
      cssVariablesResolver={variables}
      defaultColorScheme="auto"
      getStyleNonce={() => nonce}
    >
      <QueryClientProvider client={client}>
        <Notifications position="top-right" limit={4} />
        <RouterProvider router={router} />
      </QueryClientProvider>
    </MantineProvider>
  </StrictMode>,
);
