// Shows each booking and reminder as it happens, on whatever page is open.
const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/live");
socket.onmessage = ({ data }) => {
  const { event, about } = JSON.parse(data);
  if (event !== "booked" && event !== "reminded") return;
  const news = document.getElementById("news") ?? document.body.appendChild(document.createElement("div"));
  news.id = "news";
  news.textContent = event === "booked"
    ? `${about.patient_name} comes on ${about.at.replace("T", " at ")}`
    : `Reminder sent to ${about.to}`;
};
