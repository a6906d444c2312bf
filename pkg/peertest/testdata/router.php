<?php
// Answers /wait only after another request has asked for /go, so that a test
// sees whether two requests are served at a time. Everything else is echoed.
$file = getenv('PEERTEST_FILE');
switch (parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)) {
    case '/wait':
        for ($i = 0; $i < 2000 && !file_exists($file); $i++) {
            usleep(5000);
            clearstatcache();
        }
        http_response_code(file_exists($file) ? 200 : 504);
        break;
    case '/go':
        touch($file);
        break;
    case '/warn':
        trigger_error('a warning of the script', E_USER_WARNING);
        echo 'after';
        break;
    default:
        echo $_SERVER['REQUEST_METHOD'], ' ', $_SERVER['REQUEST_URI'], ' ', file_get_contents('php://input');
}
